"""Aligns an encoder with preferences: reference-anchored DPO over image pairs, and a contrastive anchor."""
