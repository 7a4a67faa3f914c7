import LorryBench
import NIOCore
import Testing

struct AnswerReaderTests {
    /// A stream as Lorry writes it.
    private static let stream = """
        data: {"id":"a","choices":[{"index":0,"text":"\\"token_ids\\":[9]","logprobs":null,\
        "finish_reason":null,"stop_reason":null,"prompt_token_ids":[1,2],"token_ids":[17]}],\
        "usage":null}

        data: {"id":"a","choices":[{"index":0,"text":"","logprobs":null,"finish_reason":null,\
        "stop_reason":null,"token_ids":[18,19]}],"usage":null}

        data: {"id":"a","choices":[{"index":0,"text":"x","logprobs":null,\
        "finish_reason":"length","stop_reason":null,"token_ids":[]}],"usage":null}

        data: {"id":"a","choices":[],"usage":{"prompt_tokens":2,"completion_tokens":3,\
        "prompt_tokens_details":{"cached_tokens":1}}}

        data: [DONE]


        """

    private static let events: [AnswerEvent] = [
        .tokens(count: 1, ids: [17]), .tokens(count: 2, ids: [18, 19]),
        .usage(outputTokenCount: 3, cachedPromptTokenCount: 1), .done,
    ]

    private func events(_ text: String, pieceSize: Int) -> [AnswerEvent] {
        var reader = AnswerReader()
        let bytes = Array(text.utf8)
        return stride(from: 0, to: bytes.count, by: pieceSize).flatMap { start in
            let piece = bytes[start..<min(start + pieceSize, bytes.count)]
            return reader.append(ByteBuffer(bytes: piece).readableBytesView)
        }
    }

    @Test(arguments: [1, 2, 7, 64, 100_000]) func readsPiecesOfAnySize(size: Int) {
        #expect(events(Self.stream, pieceSize: size) == Self.events)
    }

    @Test func linesMayEndWithCarriageReturns() {
        let text = Self.stream.replacing("\n", with: "\r\n")
        #expect(events(text, pieceSize: 10) == Self.events)
    }

    @Test func readsOtherServersSpacing() {
        let text =
            #"data:{"choices": [{"finish_reason" : null, "token_ids" : [ 4 , 5 ]}]}"# + "\n\n"
        #expect(events(text, pieceSize: 1000) == [.tokens(count: 2, ids: [4, 5])])
    }

    @Test func lastTokenMayComeWithTheReason() {
        let text = #"data: {"choices":[{"finish_reason":"length","token_ids":[6]}]}"# + "\n\n"
        #expect(events(text, pieceSize: 1000) == [.tokens(count: 1, ids: [6])])
    }

    @Test func withoutIDsEachTextIsAToken() {
        let text = """
            data: {"choices":[{"text":"a","finish_reason":null}]}

            data: {"choices":[{"text":"","finish_reason":"length"}]}


            """
        #expect(events(text, pieceSize: 1000) == [.tokens(count: 1, ids: [])])
    }

    @Test func failuresAreTold() {
        let failure = "event: error\ndata: {\"error\":{\"message\":\"no memory\"}}\n\n"
        #expect(events(failure, pieceSize: 3) == [.failure("no memory")])
        let large = #"data: {"choices":[{"finish_reason":null,"token_ids":[99999999999]}]}"# + "\n"
        for text in ["data: {]\n\n", large] {
            let found = events(text, pieceSize: 100)
            #expect(found == [.failure("an event that is not JSON of a completion")])
        }
    }

    @Test func commentsAndNamesAreNoEvents() {
        #expect(events(": hello\nevent: message\nid: 4\n\n", pieceSize: 5).isEmpty)
    }

    @Test func aLineWithoutEndIsGivenUp() {
        var reader = AnswerReader()
        let piece = ByteBuffer(repeating: 65, count: 1 << 20).readableBytesView
        var found: [AnswerEvent] = []
        for _ in 0..<8 { found += reader.append(piece) }
        #expect(found.count == 1)
        found = reader.append(ByteBuffer(string: "\ndata: [DONE]\n").readableBytesView)
        #expect(found == [.done])
    }
}
