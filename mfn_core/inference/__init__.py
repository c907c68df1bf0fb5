"""From histories to answers: the predictor that evaluation, batch scoring and serving share."""
