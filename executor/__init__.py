"""Floor 4: plans run on real devices: training, measured records, calibration. `training.train` is the way in."""
