"""What moves the assets: jobs, schedules and sensors."""
