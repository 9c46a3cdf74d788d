"""The image task, served: the classes of a picture."""
