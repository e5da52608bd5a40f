import tensorflow as tf

from tf_lap.fused import fused


def test_it_is_compiled_where_its_caller_is_traced_and_plain_else():
    traced = []

    def double(values):
        traced.append(tf.inside_function())
        return [value * 2 for value in values]

    ones = [tf.ones([3]), tf.ones([2, 2])]
    plain = fused(double)(ones)
    caller = tf.function(lambda: fused(double)(ones), autograph=False)
    for ours, theirs in zip(caller(), plain, strict=True):
        tf.debugging.assert_equal(ours, theirs)
    assert traced == [False, True]
    calls = [op for op in caller.get_concrete_function().graph.get_operations() if "PartitionedCall" in op.type]
    assert [op.get_attr("_XlaMustCompile") for op in calls] == [True]
