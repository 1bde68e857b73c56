"""The batch job: files of prompts in, one row out for every row in."""
