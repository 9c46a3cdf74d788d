"""Reports as pages, plots, Markdown, TensorBoard and MLflow."""
