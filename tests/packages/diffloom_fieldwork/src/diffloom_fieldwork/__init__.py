"""Fields seen from above, through the year and under clouds: one part of every kind."""
