"""ImpChat-Mobile: the phone app on Flet. Views depend on Flet; the models that they show and the core do not."""
