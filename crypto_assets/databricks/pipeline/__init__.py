"""Bronze, Silver and Gold as a declarative pipeline (`pyspark.pipelines`), over the same transforms as the assets."""
