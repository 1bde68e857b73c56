"""What people read of a run and of an evaluation: tables, pictures, pages, the model card."""
