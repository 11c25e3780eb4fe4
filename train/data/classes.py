"""The classes of an image, in the order of the network's logits."""

CLASSES = ("NORMAL", "PNEUMONIA")
