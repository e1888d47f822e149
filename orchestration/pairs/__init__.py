"""Preference pairs: a worse twin for every record, by belief augmentation."""
