"""The image task: classification of small images, such as Fashion-MNIST, MNIST or one's own."""
