"""DeepFashion in-shop (--dataset_mode=fashion): studio photos."""

from data.pair_dataset import PairDataset


class FashionDataset(PairDataset):
    """DeepFashion pairs; images of any size become 256×256, key points are in a 256×176 frame.

    The published tables are spelt `fasion-…` or `fasion-resize-…`, the instructions around them
    `fashion-…`; where several exist they must be equal.
    """

    file_prefixes = ("fasion", "fashion", "fasion-resize", "fashion-resize")
    default_load_size = (256, 256)
    default_old_size = (256, 176)
