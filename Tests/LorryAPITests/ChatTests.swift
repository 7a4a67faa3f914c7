import HTTPTypes
import LorryAPI
import LorryEngine
import LorryModel
import Testing

@Suite struct ChatTests {
    private func prompt(_ server: TestServer, _ json: String) async throws -> String {
        let answer = try await server.chat(json)
        #expect(answer.status == 200, "\(answer.body)")
        let ids = server.engine.requests.last?.promptTokens ?? []
        let special: [Int32: String] = [256: "<end>", 257: "<begin>"]
        var text = ""
        var bytes: [UInt8] = []
        for id in ids {
            if let token = special[id] {
                text += String(decoding: bytes, as: UTF8.self) + token
                bytes = []
            } else {
                bytes.append(UInt8(id))
            }
        }
        return text + String(decoding: bytes, as: UTF8.self)
    }

    @Test func messagesGoThroughTheTemplate() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        let text = try await prompt(
            server,
            #"""
            {"messages": [{"role": "system", "content": "be"},
             {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]}
            """#)
        #expect(text == "<begin><system>be\n<user>a\nb\n<assistant>")
    }

    @Test func toolsAndArgumentsReachTheTemplate() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        let text = try await prompt(
            server,
            #"""
            {"messages": [{"role": "assistant", "content": null, "tool_calls": [{"type": "function",
             "function": {"name": "w", "arguments": "{\"city\": \"Rome\"}"}}]}],
             "tools": [{"z": 1, "a": 2}], "add_generation_prompt": false,
             "chat_template_kwargs": {"shout": true}}
            """#)
        #expect(text.contains("Rome"))
        #expect(text.hasSuffix(#"[{"z": 1, "a": 2}]!"#), "\(text)")
    }

    @Test func finalMessageIsContinued() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        let text = try await prompt(
            server,
            #"""
            {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Once"}],
             "continue_final_message": true}
            """#)
        #expect(text == "<begin><user>hi\n<assistant>Once")
    }

    @Test func withoutATemplate() async throws {
        let server = try TestServer(FakeEngine(saying: "x"), template: nil)
        let answer = try await server.chat(#"{"messages": [{"role": "user", "content": "hi"}]}"#)
        #expect(answer.status == 400)
        #expect(try #require(try answer.string("error.message")).contains("no chat template"))
    }

    @Test func templateThatRefuses() async throws {
        let server = try TestServer(
            FakeEngine(saying: "x"), template: "{{ raise_exception('only users') }}")
        let answer = try await server.chat(#"{"messages": [{"role": "user", "content": "hi"}]}"#)
        #expect(answer.status == 400)
        #expect(try #require(try answer.string("error.message")).contains("only users"))
    }

    @Test func answerHasItsShape() async throws {
        let server = try TestServer(FakeEngine(saying: "Hi"))
        let answer = try await server.chat(
            #"{"messages": [{"role": "user", "content": "a"}], "max_completion_tokens": 1}"#)
        let text = answer.body.replacing(/"created":\d+/, with: #""created":0"#)
        #expect(
            text.hasPrefix(
                #"{"id":"chatcmpl-id1","object":"chat.completion","created":0,"model":"base","#
                    + #""choices":[{"index":0,"message":{"role":"assistant","content":"H"},"#
                    + #""logprobs":null,"finish_reason":"length","stop_reason":null}],"usage":"#),
            "\(text)")
    }

    @Test func logprobsOfTokens() async throws {
        let server = try TestServer(FakeEngine(saying: "H"))
        let answer = try await server.chat(
            #"{"messages": [{"role": "user", "content": "a"}], "logprobs": true, "top_logprobs": 2}"#
        )
        #expect(
            answer.body.contains(
                #""logprobs":{"content":[{"token":"H","logprob":-0.5,"bytes":[72],"top_logprobs":["#
                    + #"{"token":"H","logprob":-0.5,"bytes":[72]},"#
                    + #"{"token":"A","logprob":-1.5,"bytes":[65]}]}]}"#), "\(answer.body)")
    }

    @Test func streamIsByteExact() async throws {
        let server = try TestServer(FakeEngine(saying: "Hi"))
        let answer = try await server.chat(
            #"{"messages": [{"role": "user", "content": "a"}], "stream": true}"#)
        let chunk = { (delta: String, rest: String) in
            #"data: {"id":"chatcmpl-id1","object":"chat.completion.chunk","created":0,"#
                + #""model":"base","choices":[{"index":0,"delta":\#(delta),"logprobs":null,"#
                + #""finish_reason":\#(rest)}]}"# + "\n\n"
        }
        let expected =
            chunk(#"{"role":"assistant","content":""}"#, "null")
            + chunk(#"{"content":"H"}"#, "null")
            + chunk(#"{"content":"i"}"#, "null") + chunk("{}", #""stop","stop_reason":null"#)
            + "data: [DONE]\n\n"
        #expect(answer.body.replacing(/"created":\d+/, with: #""created":0"#) == expected)
    }

    @Test func everyAnswerOfAStreamBeginsWithItsRole() async throws {
        let server = try TestServer(FakeEngine(saying: "Hi"))
        let answer = try await server.chat(
            #"{"messages": [{"role": "user", "content": "a"}], "stream": true, "n": 3}"#)
        for index in 0..<3 {
            let first = answer.events.first { $0.contains(#""index":\#(index)"#) }
            #expect(try #require(first).contains(#""role":"assistant""#))
        }
    }
}
