"""Lung cancer lesions in chest CT: from a volume to lesions, their sizes and a segmentation.

The way of the data is :func:`NLSTSegLib.pipeline.segment`; the command line, the Slicer module and the training
package's evaluation all call it. Importing this package imports neither torch nor slicer.
"""

__version__ = "0.1.0"
