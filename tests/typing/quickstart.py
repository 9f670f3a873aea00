"""A student from a teacher, trained, evaluated, saved and resumed."""

import keras
import numpy as np

import keras_distill as kd

digits = kd.data.load("digits")
train = kd.data.batches(digits.train, 64, shuffle=True, augment=keras.layers.MixUp())
student: keras.Model = kd.models.mlp(digits.input_shape, digits.classes, units=(32,))
teacher = kd.models.resnet(digits.input_shape, digits.classes)

distiller = kd.Distiller(student, teacher)
distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
history = distiller.fit(train, epochs=2)
losses: list[float] = history.history["loss"]
distiller.evaluate(digits.test.images, digits.test.labels, verbose=0)
predictions = np.asarray(distiller.predict(digits.test.images, verbose=0)).argmax(-1)
distiller.student.save("student.keras")
distiller.save("distiller.keras")
distiller.export("exported")

tuning, held_out = digits.train.split(0.2)
count: int = len(held_out) + digits.train.images.shape[0]
few: kd.data.Samples = digits.train.few(100)[:50]

quiet = kd.analysis.wrong(student, digits.test).mean()
same: float = kd.analysis.agreement(student, teacher=teacher, samples=few).top
table: str = kd.analysis.table([{"net": "student", "errors": 3}])
params: dict[str, str | int | float | bool] = distiller.get_params()
