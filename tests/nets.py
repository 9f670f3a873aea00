"""Small nets that many tests train."""

import keras


def conv_pair(student_filters=4, teacher_filters=6, norm=True, name="student"):
    """Create a student and a teacher with layers `stack1` and `stack2`.

    Without normalization, training on replicas equals training on one device.
    """

    def net(filters, name):
        inputs = keras.Input((8, 8, 1))
        x = inputs
        for i in (1, 2):
            x = keras.layers.Conv2D(filters * i, 3, i, "same", name=f"conv{i}")(x)
            if norm:
                x = keras.layers.BatchNormalization(name=f"norm{i}")(x)
            x = keras.layers.ReLU(name=f"stack{i}")(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
        return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name=name)

    return net(student_filters, name), net(teacher_filters, "teacher")
