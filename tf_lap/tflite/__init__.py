"""TFLite files as they are: their tensors, their operations, and what the converter says of a model."""
