"""The plugin as it runs: built, loaded, and called with faked capabilities."""


def test_greets_and_counts(bench):
    first = bench.call("greet", "Ada").unwrap()
    again = bench.call("greet", "Ada").unwrap()

    assert (first.text, first.before) == ("Hello, Ada!", 0)
    assert (again.text, again.before) == ("Hello, Ada!", 1)
    assert [(record.message, record.fields) for record in bench.logs] == [
        ("greeted", {"name": "Ada"}),
        ("greeted", {"name": "Ada"}),
    ]
    bench.assert_nothing_denied()


def test_refuses_an_empty_name(bench):
    assert bench.call("greet", "").error == "a name, please"
