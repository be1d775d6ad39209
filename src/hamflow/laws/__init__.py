"""Laws whose density, score, or velocity is known exactly."""
