"""Networks whose computations are exported graphs, each in the place of the one it was exported from.

A family is a pair: a function from a network to its graphs, and a class that runs them behind the same
methods, so that segmenters, and all that they remember, are the same.
"""
