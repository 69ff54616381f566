"""What arrives, and when.

`generate.generate` turns a workload (`classes`, `traces`, `text` or `files`) and a seed into a `RequestSet`. `lengths`
and `arrivals` are what class workloads draw from; `tables` reads trace files; `prompts` makes random token ids.
numpy, pyarrow and datasets are imported where they are used, because importing them takes longer than all the rest.
"""
