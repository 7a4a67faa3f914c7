import LorryConfiguration
import Testing

@Suite struct QuantitiesTests {
    @Test(arguments: [
        ("0", 0), ("17", 17), ("17B", 17), ("1KiB", 1024), ("1Ki", 1024), ("1kb", 1000),
        ("1K", 1000), ("512MiB", 512 << 20), ("512 MiB", 512 << 20), ("4GiB", 4 << 30),
        ("4gib", 4 << 30), ("4GB", 4_000_000_000), ("1.5GiB", 3 << 29), ("0.5KiB", 512),
        ("2TiB", 2 << 40), ("8388607TiB", 8_388_607 << 40), ("9223372036854775807", .max),
    ])
    func sizes(text: String, bytes: Int) {
        #expect(ByteSize.parse(text) == bytes)
    }

    @Test(arguments: [
        "", "GiB", "-1", "+1", "1.", ".5", "1.2.3GiB", "1iB", "1PiB", "1 2", "1e3", "4GiB ", "0x10",
        "9223372036854775808", "8388608TiB", "99999999999999999999.5TiB", "١",
    ])
    func whatIsNoSize(text: String) {
        #expect(ByteSize.parse(text) == nil)
    }

    @Test(
        arguments: [
            ("0", Duration.zero), ("30", .seconds(30)), ("30s", .seconds(30)), ("0s", .zero),
            ("500ms", .milliseconds(500)), ("2m", .seconds(120)), ("1h", .seconds(3600)),
            ("1m30s", .seconds(90)), ("1.5s", .milliseconds(1500)), ("1h 1s", nil),
            ("1s500ms", .milliseconds(1500)),
        ] as [(String, Duration?)])
    func durations(text: String, duration: Duration?) {
        #expect(DurationText.parse(text) == duration)
    }

    @Test(arguments: [
        "", "s", "-1", "-1s", "1d", "30s1m", "1s1s", "1m30", "1..5s", "9999999h", "nan", "inf",
        "99999999999",
    ])
    func whatIsNoDuration(text: String) {
        #expect(DurationText.parse(text) == nil)
    }
}
