"""Fine-tuning, calibration and evaluation of the classifier."""
