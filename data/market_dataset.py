"""Market-1501 (--dataset_mode=market): 128×64 crops of street cameras."""

from data.pair_dataset import PairDataset


class MarketDataset(PairDataset):
    """Market-1501 pairs; key points and images are in the same 128×64 frame."""

    file_prefixes = ("market",)
    default_load_size = (128, 64)
    default_old_size = (128, 64)
