"""Private names of Keras and the backends, and code that differs by backend.

Nothing outside this package uses their attributes that begin with an underscore, or
imports `keras.src` or `tensorflow.python`.
"""

from keras_distill._backend.optional import import_keras

import_keras()
