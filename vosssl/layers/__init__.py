"""nn.Modules that two or more methods use."""
