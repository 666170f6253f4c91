"""How good a model is: metrics, the evaluation of a split through the library's own ``segment``, and its report."""
