"""Figures that compare pictures with ground truth and sets of pictures with real ones."""
