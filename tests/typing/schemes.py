"""Several trainings after another, and models that teach each other."""

import keras

import keras_distill as kd


def stages(student: keras.Model, teacher: keras.Model, data: kd.data.ImageSet):
    """Train in stages and generations, with assistants and specialists."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    first = kd.Stage([kd.Term(kd.losses.Hint(), "a", "b")], epochs=2, label_weight=0.0)
    second = kd.Stage([kd.Term(kd.losses.SoftTarget())], epochs=3)
    train = kd.data.batches(data.train, 64)
    distiller = kd.Distiller(student, teacher)
    distiller.compile("adam", loss)
    kd.fit_stages(distiller, [first, second], train)
    groups: list[list[int]] = kd.cluster_classes(teacher.predict(data.test.images), 3)
    print(groups)
    return distiller


def together(peers: list[keras.Model]) -> kd.MutualDistiller:
    """Train peers."""
    mutual = kd.MutualDistiller(peers, [kd.Term(kd.losses.SoftTarget(1.0))])
    mutual.compile("sgd", "sparse_categorical_crossentropy", log_weights=True)
    alone = kd.SelfDistiller(peers[0], ["stack1"], features="pool")
    alone.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    exit: keras.Model = alone.exit("stack1")
    print(exit.name, mutual.peers[0].name)
    return mutual
