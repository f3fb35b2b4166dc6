"""SALUS' failure predictor: signals of a robot arm in, failures of the next half second out."""
