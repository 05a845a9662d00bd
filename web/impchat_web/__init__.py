"""ImpChat-Web: the chat page in a browser, made with Gradio, for the conversations of the core (`impchat`)."""
