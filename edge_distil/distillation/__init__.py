"""General distillation: the student's architecture and initialisation, the losses, the trainers."""
