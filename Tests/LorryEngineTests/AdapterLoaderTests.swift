import Dispatch
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

        func reference(_ name: String) -> AdapterReference {
            AdapterReference(
                id: .init(name), name: name, byteCount: 100,
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

    @Test func stopsWithLoadsQueued() {
        let scene = Scene()
        let loader = scene.makeLoader()
        loader.load(scene.reference("a"))
        scene.waitForBegin("a")
        loader.load(scene.reference("b"))
        loader.stop()
        loader.load(scene.reference("c"))
        scene.finishOne()
        Thread.sleep(forTimeInterval: 0.05)
        #expect(scene.events == ["began a", "ended a"])
    }
}
