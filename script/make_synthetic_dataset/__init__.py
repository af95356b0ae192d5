"""Synthetic people with true flow, in the layouts of Market-1501 and DeepFashion."""

from script.make_synthetic_dataset.writer import DatasetOptions, DatasetSummary, make_dataset

__all__ = ["DatasetOptions", "DatasetSummary", "make_dataset"]
