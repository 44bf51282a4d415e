"""Moving the assets: jobs, schedules, sensors, restatement, housekeeping."""
