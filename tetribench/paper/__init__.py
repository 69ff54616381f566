"""The paper's figures about single iterations (section 3), drawn again: each module has its steps, table and drawing.

`table(timer)` times the figure's steps on any engine and puts the paper's points beside them; `draw` makes the figure.
A timer takes steps and answers with their timings: `partial(predict_steps, cost_model)` in virtual time,
`lambda steps: time_steps(engine, steps, ...)[0]` on real engines.
"""
