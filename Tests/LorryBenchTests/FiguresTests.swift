import LorryBench
import Testing

struct FiguresTests {
    @Test(arguments: [
        (0.0, "0"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (1234.5, "1234"),
        (0.01234, "0.0123"), (9.996, "10.0"), (99.96, "100"), (-2.5, "-2.50"),
    ])
    func showsThreeDigits(value: Double, text: String) {
        #expect(Figures.significant(value) == text)
    }

    @Test func choosesUnits() {
        #expect(Figures.duration(12.34e-6) == "12.3 µs")
        #expect(Figures.duration(0.00123) == "1.23 ms")
        #expect(Figures.duration(4.56) == "4.56 s")
        #expect(Figures.percent(0.8767) == "87.7 %")
        #expect(Figures.significant(.nan) == "-")
    }

    @Test func alignsColumns() {
        var table = TextTable([("name", .left), ("µs", .right), ("", .left)])
        table.add(["a", "12.5"])
        table.add(["longer", "3", "x"])
        #expect(table.lines == ["name      µs", "a       12.5", "longer     3  x"])
    }
}
