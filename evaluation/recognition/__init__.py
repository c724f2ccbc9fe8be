"""Speech recognition across domains on learned features."""
