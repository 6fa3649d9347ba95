"""Pure functions on tensors: no nn.Module, no state, no files."""
