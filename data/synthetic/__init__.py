"""Synthetic people with true flow, in the layouts of Market-1501 and DeepFashion."""

from data.synthetic.writer import DatasetOptions, DatasetSummary, make_dataset

__all__ = ["DatasetOptions", "DatasetSummary", "make_dataset"]
