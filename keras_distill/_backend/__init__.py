"""What Keras and the backends keep private, and what each backend does its own way.

No other room names an attribute of theirs that begins with an underscore, or imports
`keras.src` or `tensorflow.python`.
"""
