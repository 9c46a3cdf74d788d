"""The link predictor: encoder, decoders, structural features and losses."""
