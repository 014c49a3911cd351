"""What a person sees: the dashboard, the diagnostic, the summary. Fed by tables, never by a live training."""
