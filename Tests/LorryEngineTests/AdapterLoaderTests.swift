import Foundation
import LorryEngine
import LorryModel
import Synchronization
import Testing

@Suite struct AdapterLoaderTests {
    /// Loads that take until they are let go, and a note of what happened.
    private final class Scene: Sendable {
        private let gate = DispatchSemaphore(value: 0)
        private let ended = DispatchSemaphore(value: 0)
        private let notes = Mutex<[String]>([])

        var events: [String] { notes.withLock { $0 } }
        func note(_ event: String) { notes.withLock { $0.append(event) } }

        func makeLoader(threadCount: Int = 1) -> AdapterLoader {
            AdapterLoader(threadCount: threadCount) { [self] reference, result in
                if case .success = result { note("success?") }
                note("ended \(reference.name)")
                ended.signal()
            }
        }

        func reference(_ name: String, byteCount: Int = 100) -> AdapterReference {
            AdapterReference(
                id: .init(name), name: name, byteCount: byteCount,
                readAhead: { [self] in note("ahead \(name)") },
                load: { [self] in
                    note("began \(name)")
                    gate.wait()
                    throw CancellationError()
                })
        }

        /// Lets a load go on, and waits for its end.
        func finishOne() {
            gate.signal()
            ended.wait()
        }

        func waitForBegin(_ name: String) {
            while !events.contains("began \(name)") { Thread.sleep(forTimeInterval: 0.001) }
        }
    }

    @Test func loadsInOrderAndReadsAhead() {
        let scene = Scene()
        let loader = scene.makeLoader()
        loader.load(scene.reference("a"))
        scene.waitForBegin("a")
        for name in ["b", "c", "d"] { loader.load(scene.reference(name)) }
        for _ in 0..<4 { scene.finishOne() }
        #expect(
            scene.events == [
                "began a", "ended a", "ahead c", "began b", "ended b", "ahead d", "began c",
                "ended c", "began d", "ended d",
            ])
    }

    @Test func preferredLoadsComeFirst() {
        let scene = Scene()
        let loader = scene.makeLoader()
        loader.load(scene.reference("a"))
        scene.waitForBegin("a")
        for name in ["b", "c", "d", "e"] { loader.load(scene.reference(name)) }
        loader.prefer([.init("e"), .init("a"), .init("nobody"), .init("c")])
        for _ in 0..<5 { scene.finishOne() }
        #expect(
            scene.events.filter { $0.hasPrefix("began") } == [
                "began a", "began e", "began c", "began b", "began d",
            ])
    }

    @Test func cancelsOnlyWhatHasNotBegun() {
        let scene = Scene()
        let loader = scene.makeLoader()
        loader.load(scene.reference("a"))
        scene.waitForBegin("a")
        for name in ["b", "c"] { loader.load(scene.reference(name)) }
        #expect(!loader.cancel(.init("a")))
        #expect(loader.cancel(.init("b")))
        #expect(!loader.cancel(.init("b")))
        scene.finishOne()
        scene.finishOne()
        #expect(scene.events.filter { $0.hasPrefix("ended") } == ["ended a", "ended c"])
    }

    @Test func expectsWhatIsQueued() {
        let scene = Scene()
        let loader = scene.makeLoader()
        #expect(loader.expectedDuration(byteCount: 1_000_000) == .milliseconds(1))
        loader.load(scene.reference("a", byteCount: 2_000_000))
        scene.waitForBegin("a")
        loader.load(scene.reference("b", byteCount: 3_000_000))
        #expect(loader.expectedDuration(byteCount: 1_000_000) == .milliseconds(6))
        #expect(loader.cancel(.init("b")))
        #expect(loader.expectedDuration(byteCount: 1_000_000) == .milliseconds(3))
        scene.finishOne()
        // A failed load takes no part in the estimate.
        #expect(loader.expectedDuration(byteCount: 1_000_000) == .milliseconds(1))
    }

    @Test func stopsWithLoadsQueued() {
        let scene = Scene()
        let loader = scene.makeLoader()
        loader.load(scene.reference("a"))
        scene.waitForBegin("a")
        loader.load(scene.reference("b"))
        loader.stop()
        loader.load(scene.reference("c"))
        scene.finishOne()
        #expect(!loader.cancel(.init("b")) && !loader.cancel(.init("c")))
        #expect(scene.events.last == "ended a")
    }
}
