"""Training of NLSTSeg models; inference and measurements are the library's own."""
