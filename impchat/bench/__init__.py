"""`impchat bench`: measures a model on this machine, alone and against llama.cpp's own programs.

In: a bundle. Out: a `report.Report` with one value of each figure for each round. Histories and caches are kept in
temporary folders: the user's conversations are neither read nor changed.
This package does not know how a report is shown.
"""
