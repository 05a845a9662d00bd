"""ImpChat-Web: the chat page in a browser, on Gradio. It shows what the core (`impchat`) keeps and does."""
