"""Preference pairs: for each record a worse answer, made by belief augmentation."""
